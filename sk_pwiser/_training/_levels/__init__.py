"""The level of each task: by how much predictions are too high or too low on average.

What it is. For an event, an offset of the log-odds of its head; for an amount, an
offset of the logarithm. The network stores both beside its weights, in `level_offset`,
`value_offset` and `value_slope`: predictions, graphs and files need them there.

How a fit sets it, how an update moves it. `Levels` has one method for each moment; no
other code moves the level of a net. Events (`_event_level`) and amounts
(`_amount_level`) differ in what rows tell of a level, and how exactly. How far it is
believed is one rule for both (`_drift`), by the error of the level so far, the time
that has passed (`_clock`), and how far the levels of this log have wandered.

What it is estimated from. The criterion stores the numbers of events, their weights,
the clock and the drift of the events; its `value_terms` store those of the amounts.
What the market moved (`log_moves`) is part of what training compares with the amounts.
What the training itself moved, and `keep_means` takes back, is not.
"""
