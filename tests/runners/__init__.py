"""The runners of CI systems, as far as a job sees them, for tests of the files for CI."""
