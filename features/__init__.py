"""Records in, profiles out: the ground floor of Weibing."""
