"""How pages of Fedspect look: colours, charts, words for numbers, and the frame of a page."""
