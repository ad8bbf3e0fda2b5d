//! NICs beside the one that boots: bonds, VLANs, further networks.
