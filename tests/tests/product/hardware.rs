//! What a machine is besides processors, memory, disks and networks: its kernel, type, CPU, accelerator, and words for
//! QEMU.

use std::fs::{self, OpenOptions};
use std::io::Write;

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
