//! Machines nobody knows, and people who choose: the hardware report, `adopt`, the menu.
