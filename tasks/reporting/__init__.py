"""What people look at: figures, the HTML report, the model card."""
