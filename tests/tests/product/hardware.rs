//! What a machine is besides processors, memory, disks and networks: its kernel, type, CPU, accelerator, and words for
//! QEMU.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use vmctl_tests::{World, leaks, process};

/// A machine without a disk that boots the tiny guest's kernel and the initrd `initrd.img`.
fn direct(world: &World, word: &str) {
    let images = World::tiny_image();
    let images = images.parent().expect("the images' folder").display();
    world.vmfile(&format!(
        r#"
vm "direct" {{
    memory 384
    kernel "{images}/tiny-vmlinuz"
    initrd "initrd.img"
    cmdline "console=ttyS0 quiet mitigations=off random.trust_cpu=on panic=5 word={word}"
    machine "pc"
    cpu "qemu64,+ssse3"
    accel "tcg"
    qemu-arg "-smbios"
    qemu-arg "type=1,serial=of-the-file"
    ssh {{ user "vm" }}
}}
"#
    ));
}

#[test]
fn kernel_is_booted_without_a_disk_on_the_hardware_that_was_asked_for() {
    let world = World::new(1);
    let images = World::tiny_image();
    let initrd = world.project().join("initrd.img");
    fs::copy(images.with_file_name("tiny-initrd.img"), &initrd).expect("a copy of the initrd");
    direct(&world, "one");
    world.vmctl(&["validate"]).expect(0).says("passed on as they are");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(world.exec("direct", "cat /proc/cmdline").contains("word=one"));
    assert!(world.exec("direct", "cat /proc/cpuinfo").contains("QEMU Virtual CPU"));
    assert_eq!(world.exec("direct", "sudo cat /sys/class/dmi/id/product_serial"), "of-the-file\n");
    let arguments = process::arguments(world.pid("direct")).expect("a running machine");
    assert!(arguments.windows(2).any(|pair| pair == ["-machine", "pc"]), "{arguments:?}");
    assert_eq!(world.decisions()["vm.direct"], "no-op");
    leaks::leakcheck(&world);

    // Another command line is a restart, and so is another initrd; what is behind an archive of zeros is not read.
    direct(&world, "two");
    assert_eq!(world.decisions()["vm.direct"], "restart");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(world.exec("direct", "cat /proc/cmdline").contains("word=two"));
    world.vmctl(&["stop", "direct"]).expect(0);
    let mut file = OpenOptions::new().append(true).open(&initrd).expect("the initrd");
    file.write_all(&[0; 512]).expect("to grow the initrd");
    world.vmctl(&["start", "direct"]).expect(1).says("initrd.img").says("it changed since");
    assert_eq!(world.states()["direct"], "stopped");
    world.vmctl(&["up"]).expect(0);
    assert_eq!(world.states()["direct"], "running");
    world.vmctl(&["down", "--destroy"]).expect(0);
}

/// Emulated beside other guests, Linux on a `microvm` cannot measure its clock, and hung until it was told.
#[test]
fn microvm_boots_beside_other_work_stops_and_starts_again() {
    let world = World::new(1);
    let images = World::tiny_image();
    for name in ["tiny-vmlinuz", "tiny-initrd.img"] {
        fs::copy(images.with_file_name(name), world.project().join(name)).expect("a copy");
    }
    let cmdline = fs::read_to_string(images.with_file_name("tiny.cmdline")).expect("the kernel's arguments");
    world.vmfile(&format!(
        r#"
vm "micro" {{
    image "TINY"
    machine "microvm"
    kernel "tiny-vmlinuz"
    initrd "tiny-initrd.img"
    cmdline "{} root=LABEL=rootfs"
    memory 192
    ssh {{ user "vm" }}
}}
"#,
        cmdline.trim()
    ));
    world.vmctl(&["up"]).expect(0);
    assert!(world.exec("micro", "cat /proc/cmdline").contains("tsc_early_khz="));
    assert_eq!(world.exec("micro", "ls /sys/bus/pci/devices"), "", "it has no PCI bus");
    world.exec("micro", "echo kept > kept; sync");
    world.vmctl(&["stop", "micro"]).expect(0);
    world.vmctl(&["up"]).expect(0);
    assert_eq!(world.exec("micro", "cat kept"), "kept\n");
    leaks::leakcheck(&world);
    world.vmctl(&["down", "--destroy"]).expect(0);
}

#[test]
fn guest_boots_by_uefi_tells_its_address_and_shows_itself_behind_a_password() {
    let world = World::new(1);
    world.vmfile("vm \"firm\" { image \"TINY\"; memory 256; firmware \"uefi\"; vnc \"tcp\"; ssh }");
    world.vmctl(&["up"]).expect(0);
    world.exec("firm", "ls /sys/firmware/efi");
    let status = world.vmctl(&["status", "firm", "--json"]).expect(0).json();
    assert_eq!(status["guest"]["interfaces"][0]["addresses"][0], "10.0.2.15", "{status:#}");
    leaks::leakcheck(&world);

    // Who connects must know the password (RFC 6143, 7.1.2), and it stands on no command line.
    let vnc = world.vmctl(&["vnc", "firm", "--json"]).expect(0).json();
    let password = vnc["password"].as_str().expect("a password");
    let address = vnc["address"].as_str().and_then(|at| at.strip_prefix("tcp:")).expect("an address");
    let mut display = TcpStream::connect(address).expect("the display listens");
    let mut greeting = [0; 12];
    display.read_exact(&mut greeting).expect("a greeting");
    display.write_all(&greeting).expect("to answer it");
    let mut kinds = [0; 2];
    display.read_exact(&mut kinds).expect("kinds of security");
    assert_eq!(kinds, [1, 2], "VNC authentication, and nothing else");
    let arguments = process::arguments(world.pid("firm")).expect("a running machine");
    assert!(arguments.iter().all(|argument| !argument.contains(password)), "{arguments:?}");
    assert!(world.vmctl(&["status", "firm"]).expect(0).text().contains("Guest says:"));

    let variables = world.vm("firm")["uefi_variables"].as_str().map(PathBuf::from).expect("variables");
    world.vmctl(&["stop", "firm"]).expect(0);
    fs::remove_file(&variables).expect("to lose the variables");
    assert!(world.drift()["vm.firm"].contains(&"firmware-missing".to_owned()));
    world.vmctl(&["start", "firm"]).expect(1).says("it is gone");
    world.vmctl(&["up"]).expect(0);
    assert!(variables.exists());
    let held = leaks::held(&world);
    world.vmctl(&["down", "--destroy"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn arm_machine_starts_and_missing_firmware_is_refused_before_anything_is_made() {
    let mut world = World::new(1);
    world.blank_image();
    world
        .vmfile("vm \"arm\" { arch \"aarch64\"; image \"blank.qcow2\"; memory 256; ready { log \"UEFI\" } }");
    world.vmctl(&["up"]).expect(0);
    assert_eq!(world.states()["arm"], "running");
    world.vmctl(&["destroy", "arm", "--yes"]).expect(0);

    // Empty descriptors of the user's own hide those of the host.
    let folder = world.folder().join("home/qemu/firmware");
    fs::create_dir_all(&folder).expect("a folder");
    for entry in fs::read_dir("/usr/share/qemu/firmware").expect("descriptors of the host").flatten() {
        fs::write(folder.join(entry.file_name()), "").expect("an empty descriptor");
    }
    let home = world.folder().join("home");
    world.set("XDG_CONFIG_HOME", home);
    world.vmctl(&["up"]).expect(1).says("no UEFI firmware for aarch64").says("qemu-efi-aarch64");
    world.vmctl(&["doctor"]).expect(0).says("ovmf");
    assert!(world.states().is_empty());
}

#[test]
fn kvm_that_was_asked_for_is_used_or_refused_before_anything_is_made() {
    let mut world = World::new(1);
    world.unset("VMCTL_ACCEL");
    world.blank_image();
    world.vmfile("vm \"fast\" { image \"blank.qcow2\"; memory 32; accel \"kvm\" }");
    let doctor = world.vmctl(&["doctor", "--json"]).expect(0).json();
    let checks = doctor["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == "acceleration").expect("one of acceleration");
    if check["detail"] == "kvm" {
        world.vmctl(&["up"]).expect(0);
        assert_eq!(world.states()["fast"], "running");
        world.vmctl(&["down", "--destroy"]).expect(0);
    } else {
        world.vmctl(&["up"]).expect(1).says("KVM was asked for, but");
        assert!(world.states().is_empty());
    }
}
