"""What programs speak: the HTTP application and its doors."""
