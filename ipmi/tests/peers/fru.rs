//! Inventory as a factory writes it (Platform Management FRU Information Storage Definition 1.3, §8, §11, §12).

use koboshi_ipmi::message::checksum;

/// The board: manufacturer, name, serial, part, file.
pub const BOARD: [&str; 5] = ["KOBOSHI", "Board X1", "B-0042", "P-7", ""];
/// The product: manufacturer, name, part, version, serial, asset, file.
pub const PRODUCT: [&str; 7] = ["KOBOSHI", "Server K1", "K1-00", "rev 2", "S-0815", "A-99", ""];

/// Common header, board and product areas, each with its checksum.
pub fn bytes() -> Vec<u8> {
    // Language English; made at minute 0x000100 of 1996.
    let board = area(&[1, 0, 25, 0x00, 0x01, 0x00], &BOARD);
    let product = area(&[1, 0, 25], &PRODUCT);
    let first = 8;
    let second = first + board.len();
    let mut out = vec![1, 0, 0, (first / 8) as u8, (second / 8) as u8, 0, 0];
    out.push(checksum(&out));
    out.extend(board);
    out.extend(product);
    out
}

fn area(head: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut out = head.to_vec();
    for field in fields {
        // 8-bit Latin 1.
        out.push(0xc0 | field.len() as u8);
        out.extend(field.bytes());
    }
    out.push(0xc1);
    while out.len() % 8 != 7 {
        out.push(0);
    }
    out[1] = ((out.len() + 1) / 8) as u8;
    out.push(checksum(&out));
    out
}
