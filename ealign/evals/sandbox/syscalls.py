"""The system calls of Linux that code in the sandbox is refused.

Each is name:number on x86_64:number on aarch64, '-' where there is none; the
numbers are those of the kernel's headers. What only root may do is refused by
having no rights; what is listed here any user may do.
"""

_REFUSED = """
fork:57:- vfork:58:- clone:56:220 clone3:435:435 execve:59:221
execveat:322:281

socket:41:198 socketpair:53:199 connect:42:203 accept:43:202 accept4:288:242
bind:49:200 listen:50:201 sendto:44:206 sendmsg:46:211 sendmmsg:307:269

creat:85:- openat2:437:437 truncate:76:45 ftruncate:77:46 fallocate:285:47
rename:82:- renameat:264:38 renameat2:316:276 mkdir:83:- mkdirat:258:34
rmdir:84:- link:86:- linkat:265:37 unlink:87:- unlinkat:263:35 symlink:88:-
symlinkat:266:36 chmod:90:- fchmod:91:52 fchmodat:268:53 fchmodat2:452:452
chown:92:- fchown:93:55 lchown:94:- fchownat:260:54 utime:132:- utimes:235:-
futimesat:261:- utimensat:280:88 mknod:133:- mknodat:259:33 setxattr:188:5
lsetxattr:189:6 fsetxattr:190:7 removexattr:197:14 lremovexattr:198:15
fremovexattr:199:16 memfd_create:319:279 memfd_secret:447:447 mq_open:240:180
mq_unlink:241:181 shmget:29:194 semget:64:190 msgget:68:186

tkill:200:130 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240
pidfd_open:434:434 pidfd_getfd:438:438 pidfd_send_signal:424:424
ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271
process_madvise:440:440 process_mrelease:448:448 kcmp:312:272 setpgid:109:154
setsid:112:157 setpriority:141:140 ioprio_set:251:30 sched_setparam:142:118
sched_setscheduler:144:119 sched_setaffinity:203:122 sched_setattr:314:274
migrate_pages:256:238 move_pages:279:239

unshare:272:97 setns:308:268 chroot:161:51 pivot_root:155:41 mount:165:40
umount2:166:39 open_tree:428:428 move_mount:429:429 fsopen:430:430
fsmount:432:432 mount_setattr:442:442 bpf:321:280 perf_event_open:298:241
userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426
io_uring_register:427:427 add_key:248:217 request_key:249:218 keyctl:250:219
name_to_handle_at:303:264 open_by_handle_at:304:265 init_module:175:105
finit_module:313:273 kexec_load:246:104 kexec_file_load:320:294
reboot:169:142 swapon:167:224 acct:163:89
"""
# Those of which it depends on an argument.
_ASKED = """
open:2:- openat:257:56 kill:62:129 tgkill:234:131 prlimit64:302:261 fcntl:72:25
ioctl:16:29
"""
# Machine -> its number in the kernel's audit, and the column above.
MACHINES = {'x86_64': (0xC000003E, 0), 'aarch64': (0xC00000B7, 1)}
X32 = 0x40000000  # from here on x86_64 has a second set of the same calls


def _numbers(table: str, machine: str) -> dict[str, int]:
  column = MACHINES[machine][1]
  rows = (entry.split(':') for entry in table.split())
  return {
    name: int(numbers[column])
    for name, *numbers in rows
    if numbers[column] != '-'
  }


def refused(machine: str) -> dict[str, int]:
  """Name -> number of the calls that are refused whatever their arguments."""
  return _numbers(_REFUSED, machine)


def asked(machine: str) -> dict[str, int]:
  """Name -> number of the calls whose arguments decide."""
  return _numbers(_ASKED, machine)
