"""CnC-Mini: a small model of the same architecture, trained from nothing on procedural scenes."""
