"""What the runners of CI systems do with a job, for tests of the files for them."""
