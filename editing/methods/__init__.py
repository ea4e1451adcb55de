"""The editing methods: one file each, a registry, and a folder for what a family of methods shares."""
