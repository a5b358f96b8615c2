"""The programs that a user starts; what they are made of lies in the folders."""
