"""What a report shows (`findings`), how it is drawn (`charts`), its `page`."""
