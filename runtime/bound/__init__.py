"""What every executor needs: a plan's ops bound to layouts, groups and a backend, and counts of what ran."""
