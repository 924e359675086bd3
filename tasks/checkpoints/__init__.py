"""Reading what trainers wrote, and writing model directories."""
