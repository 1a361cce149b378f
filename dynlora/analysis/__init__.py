"""What is computed of runs and is no view: numbers and sentences that command line, pages and reports share."""
