"""Artifacts: opaque bytes behind one `safe_path`, in a folder or in Azure Blob."""
