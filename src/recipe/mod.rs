//! Recipes: how to rebuild one message from literal octets and pieces.
