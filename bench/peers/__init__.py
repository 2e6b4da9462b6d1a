"""The store and its peers, each able to do the same few things to be measured."""
