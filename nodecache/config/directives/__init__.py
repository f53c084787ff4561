"""One file for each group of directives of the Corefile, and the table of them all."""
