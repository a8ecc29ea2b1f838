"""Those who follow the changes: one tail a loop, mirrors fed by it, watches and views on top."""
