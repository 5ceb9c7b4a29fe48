"""The command line (DESIGN section 5). Each command's module is imported when it is called, not before."""
