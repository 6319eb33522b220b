"""Numbers in Chinese are grouped like everywhere else in the console (and in static/js/app.js): 1,234.5."""

THOUSAND_SEPARATOR = ","
NUMBER_GROUPING = 3
