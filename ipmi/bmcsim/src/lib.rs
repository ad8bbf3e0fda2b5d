//! A simulated BMC with faults, for racks without hardware.
