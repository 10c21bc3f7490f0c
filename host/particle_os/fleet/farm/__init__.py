"""The farm: builds on other machines, through Dask's `distributed`."""
