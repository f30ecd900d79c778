"""The conscience's audit: can it tell good replies from bad ones at all?

`exchanges` (`data.exchanges`) are labelled. A `Setting` is one way to put the
question; `ask` reads P(flag) of each row with it; `measures` says what that is
worth, `baselines` what comes without a conscience, `choose` tries settings on
split dev, `writer` shows what the alternatives are.
"""
