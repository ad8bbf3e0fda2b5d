//! The appliance comes last, or a stage never comes: what is found, and said in words.
