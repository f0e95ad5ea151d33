"""What onlookers see of a run, in a terminal and on a page. Nobody here writes, or is waited for."""
