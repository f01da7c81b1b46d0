"""Layout of Fedspect's pages: colours, charts, number formats, and the frame of a page."""
