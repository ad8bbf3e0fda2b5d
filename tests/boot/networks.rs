//! Relays, and somebody else's DHCP server.
