# Double of the library that the stock migrate script takes from its own directory.
