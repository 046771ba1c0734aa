"""The house: what can be counted of the library's structure, words, examples and costs."""
