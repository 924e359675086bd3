"""What every room stands on: errors, records, digests, publishing, directories, threads."""
