"""Where a classifier sees a class: its maps, the boxes of the maps, and how well those fit."""
