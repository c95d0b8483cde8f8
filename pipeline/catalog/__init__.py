"""The index of many scenes: what is known of each without opening it."""
