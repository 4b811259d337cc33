"""The command line: one file a command, which calls one public function and prints."""
