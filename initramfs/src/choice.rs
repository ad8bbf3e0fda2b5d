//! Which of a kernel's modules a machine may need before its root file system is there: everything
//! that leads to a wired network, to a disk, to a console, or to the BMC. A data-centre's next
//! machine has a NIC nobody has thought of, so whole folders are taken; what no server boots from
//! (radio, graphics, sound) is left out.

/// A choice of modules, before their dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Beginnings of paths below `modules/<release>/`.
    pub folders: Vec<String>,
    /// Single modules by name, `-` as `_`.
    pub names: Vec<String>,
    /// Beginnings of paths not taken by folder (a dependency still brings them).
    pub without: Vec<String>,
}

const FOLDERS: &[&str] = &[
    // The boot NIC, its PHY, and what is put on top of it.
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/phy/",
    "kernel/drivers/net/mdio",
    "kernel/drivers/net/pcs/",
    "kernel/drivers/net/usb/",
    "kernel/drivers/net/bonding/",
    "kernel/drivers/net/team/",
    "kernel/drivers/net/vmxnet3/",
    "kernel/drivers/net/hyperv/",
    "kernel/drivers/net/fjes/",
    "kernel/net/8021q/",
    // Disks, controllers and the layers over them.
    "kernel/drivers/nvme/host/",
    "kernel/drivers/ata/",
    "kernel/drivers/scsi/",
    "kernel/drivers/message/fusion/",
    "kernel/drivers/md/",
    "kernel/drivers/mmc/",
    "kernel/drivers/cdrom/",
    "kernel/drivers/usb/storage/",
    "kernel/drivers/block/mtip32xx/",
    // Machines that are not of metal.
    "kernel/drivers/virtio/",
    "kernel/drivers/hv/",
    // Keyboards, serial lines, the BMC.
    "kernel/drivers/usb/host/",
    "kernel/drivers/usb/core/",
    "kernel/drivers/usb/common/",
    "kernel/drivers/hid/usbhid/",
    "kernel/drivers/tty/serial/",
    "kernel/drivers/char/ipmi/",
    // File systems of roots and of data disks.
    "kernel/fs/overlayfs/",
    "kernel/fs/squashfs/",
    "kernel/fs/erofs/",
    "kernel/fs/isofs/",
    "kernel/fs/ext4/",
    "kernel/fs/xfs/",
    "kernel/fs/btrfs/",
    "kernel/fs/fat/",
    "kernel/fs/nfs/",
    "kernel/fs/fuse/",
    "kernel/fs/efivarfs/",
    // Built by the site itself, or by a vendor's package: somebody wanted them.
    "updates/",
    "extra/",
    "weak-updates/",
];

const NAMES: &[&str] = &[
    "virtio_net",
    "net_failover",
    "xen_netfront",
    // A kernel that panics says so to the appliance.
    "netconsole",
    "dummy",
    "veth",
    "af_packet",
    "ipv6",
    "virtio_blk",
    "xen_blkfront",
    "loop",
    "brd",
    "nbd",
    "zram",
    "vmd",
    "pci_hyperv",
    "nd_pmem",
    "virtio_console",
    "virtio_rng",
    "hid_generic",
    "hid_hyperv",
    "hyperv_keyboard",
    "i8042",
    "atkbd",
    "rtc_cmos",
    "i6300esb",
    "iTCO_wdt",
    "lpc_ich",
    "i2c_i801",
    "sp5100_tco",
    "hpwdt",
    "wdat_wdt",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "nls_ascii",
    "crc32c_generic",
    "crc32c_intel",
    "simpledrm",
    "qemu_fw_cfg",
];

const WITHOUT: &[&str] = &[
    // Switches, with firmware of tens of megabytes.
    "kernel/drivers/net/ethernet/mellanox/mlxsw/",
    "kernel/drivers/net/ethernet/marvell/prestera/",
    "kernel/drivers/net/ethernet/microchip/sparx5/",
    "kernel/drivers/net/ethernet/microchip/lan966x/",
    // PC cards.
    "kernel/drivers/scsi/pcmcia/",
    "kernel/drivers/ata/pata_pcmcia",
    "kernel/drivers/net/ethernet/8390/axnet_cs",
    "kernel/drivers/net/ethernet/8390/pcnet_cs",
    "kernel/drivers/tty/serial/8250/serial_cs",
    // Telephones.
    "kernel/drivers/net/usb/cdc-phonet",
    "kernel/drivers/net/usb/cdc_mbim",
    "kernel/drivers/net/usb/hso",
    "kernel/drivers/net/usb/huawei_cdc_ncm",
    "kernel/drivers/net/usb/ipheth",
    "kernel/drivers/net/usb/kalmia",
    "kernel/drivers/net/usb/lg-vl600",
    "kernel/drivers/net/usb/qmi_wwan",
    "kernel/drivers/net/usb/sierra_net",
    // RDMA brings all of InfiniBand along.
    "kernel/drivers/nvme/host/nvme-rdma",
    "kernel/drivers/nvme/host/nvme-fc",
    "kernel/drivers/scsi/scsi_debug",
    // Being a disk for others, and locks shared by a cluster.
    "kernel/drivers/scsi/elx/",
    "kernel/drivers/scsi/qla2xxx/tcm_",
    "kernel/drivers/md/md-cluster",
    // Graphics.
    "updates/dkms/nvidia",
    "updates/dkms/amdgpu",
    "extra/nvidia",
    "extra/amdgpu",
];

impl Choice {
    /// Every wired NIC and every disk: any machine of the site can be any role (S19).
    pub fn servers() -> Self {
        Self { folders: owned(FOLDERS), names: owned(NAMES), without: owned(WITHOUT) }
    }

    /// These modules and no others.
    pub fn only(names: &[&str]) -> Self {
        Self { folders: Vec::new(), names: owned(names), without: Vec::new() }
    }

    /// Whether a module is taken for itself.
    pub(crate) fn takes(&self, name: &str, path: &str) -> bool {
        let under = |starts: &[String]| starts.iter().any(|start| path.starts_with(start.as_str()));
        self.names.iter().any(|n| n == name) || (under(&self.folders) && !under(&self.without))
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_nics_and_no_radio() {
        let choice = Choice::servers();
        for (name, path, want) in [
            ("e1000e", "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz", true),
            ("virtio_net", "kernel/drivers/net/virtio_net.ko", true),
            ("mdio", "kernel/drivers/net/mdio.ko", true),
            ("realtek", "kernel/drivers/net/phy/realtek.ko", true),
            (
                "mlxsw_spectrum",
                "kernel/drivers/net/ethernet/mellanox/mlxsw/mlxsw_spectrum.ko",
                false,
            ),
            ("iwlwifi", "kernel/drivers/net/wireless/intel/iwlwifi/iwlwifi.ko", false),
            ("amdgpu", "kernel/drivers/gpu/drm/amd/amdgpu/amdgpu.ko", false),
            ("nvidia_drm", "updates/dkms/nvidia-drm.ko", false),
            ("igb", "updates/dkms/igb.ko", true),
        ] {
            assert_eq!(choice.takes(name, path), want, "{path}");
        }
    }
}
