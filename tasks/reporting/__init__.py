"""What people read: tables, figures, the HTML report, the model card."""
