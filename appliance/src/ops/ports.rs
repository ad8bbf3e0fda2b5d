//! `koboshi console --ports`: the serial ports of this host, by the names that the site file may have. Nobody
//! is asked but the kernel.

use koboshi_console::wire::serial::Listed;

use super::table::table;

/// For a terminal.
pub fn show(ports: &[Listed]) -> String {
    if ports.is_empty() {
        return "this host has no serial port; a USB adapter is one when it is plugged in\n"
            .to_string();
    }
    let rows: Vec<_> = ports.iter().map(row).collect();
    let text = table(&["CONSOLE =", "DEVICE", "DRIVER", "WHAT IT IS", "WHO HAS IT"], &rows);
    let like = "machines.m01.console";
    let first = ports.first().map(|port| &port.name);
    let example = first.map(|name| format!("\nlike {like} = \"serial:{name}@115200\"\n"));
    text + &example.unwrap_or_default()
}

fn row(port: &Listed) -> Vec<String> {
    let held = match (&port.held, port.console) {
        (Some(who), false) => who.clone(),
        (Some(who), true) => format!("{who}; the kernel writes there too"),
        (None, true) => "the kernel writes there: console= of this host".to_string(),
        (None, false) => String::new(),
    };
    vec![
        format!("serial:{}@…", port.name),
        port.device.display().to_string(),
        port.driver.clone().unwrap_or_default(),
        port.product.clone().unwrap_or_default(),
        held,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_names_for_the_site_file() {
        let port = Listed {
            device: "/dev/ttyUSB0".into(),
            name: "usb:A50285BI".to_string(),
            links: Vec::new(),
            driver: Some("ftdi_sio".to_string()),
            product: Some("FTDI FT232R".to_string()),
            held: Some("agetty (process 812)".to_string()),
            console: false,
        };
        let shown = show(std::slice::from_ref(&port));
        assert!(
            shown.contains(
                "serial:usb:A50285BI@…  /dev/ttyUSB0  ftdi_sio  FTDI FT232R  agetty (process 812)"
            ),
            "{shown}"
        );
        assert!(shown.ends_with("console = \"serial:usb:A50285BI@115200\"\n"), "{shown}");
        let json = serde_json::to_string(&port).unwrap();
        assert_eq!(serde_json::from_str::<Listed>(&json).unwrap(), port);
        assert!(show(&[]).contains("no serial port"));
    }
}
