"""The terminal: what the commands of all rooms say, ask and show in one way.

In here: the two streams (`console`), options with one wording (`options`), the board of stages (`board`), words
(`words`). Never: knowledge of what a command does.
"""
