"""The system as an OCI image, in the form that bootc wants."""
