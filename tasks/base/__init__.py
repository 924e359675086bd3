"""What every room uses: errors, records, digests, publishing, directories, threads, requests to the Hub."""
