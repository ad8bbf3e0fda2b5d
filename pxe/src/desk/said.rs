//! The words by which a line of a timeline is known again: who looks for the cause of a boot that went
//! no further reads them (`appliance`'s diagnosis). Each is followed or preceded by a file's name.

/// Then the file's name: UEFI asks TFTP for the size alone, and aborts.
pub const SIZE_ASKED: &str = "asked the size of ";
/// After the file's name: the client sent an ERROR.
pub const BROKE_OFF: &str = " broke off after ";
/// After the file's name: nothing came any more.
pub const FELL_SILENT: &str = ": the client fell silent after ";
/// Then the file's name: it was not given.
pub const ASKED_FOR: &str = "asked for ";
/// Whom an address was given to, as in `10.77.0.11 to PXE firmware`.
pub const FIRMWARE: &str = "PXE firmware";
/// The same.
pub const HTTP_BOOT: &str = "UEFI HTTP boot";
/// The same.
pub const IPXE: &str = "iPXE";
/// Between the address and the file that goes with it: `, then undionly.kpxe`.
pub const THEN: &str = ", then ";
/// After what somebody chose at the machine's console.
pub const TYPED: &str = " was typed at its console";
