/** A file: where it is, or what is in it. */
export interface Image {
  url?: string;
  buffer?: ArrayBuffer | Uint8Array | Blob;
  /** Disks: fetched in pieces when the guest reads them, by HTTP ranges or out of a Blob. */
  async?: boolean;
  /** Bytes of the whole. */
  size?: number;
  /** Disks: fetched in files of `fixed_chunk_size` bytes, called NAME-START-END.EXT. */
  use_parts?: boolean;
  fixed_chunk_size?: number;
}

export interface V86Options {
  /** Of this package's program, if it is not beside the script. Names of v86's own program are passed over. */
  wasm_path?: string;
  memory_size?: number;
  vga_memory_size?: number;
  autostart?: boolean;
  acpi?: boolean;
  boot_order?: number;
  bios?: Image;
  vga_bios?: Image;
  bzimage?: Image;
  initrd?: Image;
  cmdline?: string;
  multiboot?: Image;
  bzimage_initrd_from_filesystem?: boolean;
  hda?: Image;
  hdb?: Image;
  /** In the place that the CD-ROM drive has else. */
  hdc?: Image;
  hdd?: Image;
  cdrom?: Image;
  fda?: Image;
  fdb?: Image;
  /** A disk for a guest that has a driver for virtio. */
  virtio_blk?: Image;
  /** A saved state, plain or packed by Zstandard; `parts` are URLs of its pieces. */
  initial_state?: Image | { parts: string[] } | ((load: (url: string) => Promise<Uint8Array>) => Promise<ArrayBuffer>);
  /** `packed`: beside each file there is one that is packed by Zstandard, NAME.zst, as `env86 prepare` makes them. */
  filesystem?: { basefs?: string | { url: string }; baseurl?: string; packed?: boolean };
  screen_container?: HTMLElement | null;
  screen?: { container?: HTMLElement; scaling?: "smooth" | "pixelated" };
  serial_container?: HTMLTextAreaElement;
  serial_container_xtermjs?: HTMLElement;
  serial_console?: { type: "textarea" | "xtermjs" | "none"; container?: HTMLElement; xterm_lib?: Function };
  virtio_console?: boolean | object;
  virtio_balloon?: boolean;
  /** Where the network cable leads: a relay at ws: or wss:, one Ethernet frame a message; or "inbrowser". */
  network_relay_url?: string;
  net_device?: { type?: "ne2k" | "virtio" | "none"; relay_url?: string };
  /** Nothing is heard of the machine. */
  disable_speaker?: boolean;
  disable_keyboard?: boolean;
  disable_mouse?: boolean;
  /** The machine is one that `env86 boot --console-url` runs: the address of its control socket, with the token. */
  control_url?: string;
  /** The machine runs in the page's own thread. Node has it so always. */
  same_thread?: boolean;
}

export interface Events {
  "emulator-ready": undefined;
  "emulator-loaded": undefined;
  "emulator-started": undefined;
  "emulator-stopped": undefined;
  /** The guest has switched the machine off ("power-off", "halted"), or ended it otherwise. */
  "emulator-ended": string;
  /** The machine could not be started, or cannot go on. */
  "emulator-error": Error;
  "download-progress": {
    file_index: number;
    file_count: number;
    file_name: string;
    lengthComputable: boolean;
    total: number;
    loaded: number;
  };
  "download-error": { file_index: number; file_count: number; file_name: string; request: { message: string } };
  "9p-read-end": [filename: string, byte_count: number];
  "serial0-output-byte": number;
  "serial1-output-byte": number;
  "serial0-output-bytes": Uint8Array;
  "serial1-output-bytes": Uint8Array;
  /** What COM1 had said before the page came to a machine that runs elsewhere. */
  "serial0-recalled-bytes": Uint8Array;
  /** The terminal of this page is the one that answers what the guest asks of terminals. */
  "terminal-answers": boolean;
  /** Bytes of COM1's that such a machine could not keep for this page, and of the page's that the guest has no room for. */
  lost: number;
  untaken: number;
  "virtio-console0-output-bytes": Uint8Array;
  "vmware-absolute-mouse": boolean;
  /** The network card has sent a frame. */
  "net0-send": Uint8Array;
  /** Bytes that it has sent and received, told together for a tenth of a second. */
  "eth-transmit-end": [byte_count: number];
  "eth-receive-end": [byte_count: number];
  /** The relay has been reached, or lost. */
  "network-change": boolean;
  /** The machine begins to play, or has ended. */
  sound: boolean;
  /** What it plays: 48,000 frames a second, left and right in turns. */
  "sound-output": Int16Array;
  /** The guest has reset the machine. */
  reset: undefined;
}

export class FileNotFoundError extends Error {}

export class V86 {
  constructor(options: V86Options);
  /** What `boot` made it of. */
  config?: V86Options & Record<string, unknown>;
  run(): Promise<void>;
  stop(): Promise<void>;
  restart(): Promise<void>;
  destroy(): Promise<void>;
  is_running(): boolean;
  get_instruction_counter(): number;
  add_listener<T extends keyof Events>(event: T, listener: (argument: Events[T]) => void): void;
  remove_listener<T extends keyof Events>(event: T, listener: (argument: Events[T]) => void): void;
  save_state(): Promise<ArrayBuffer>;
  restore_state(state: ArrayBuffer | Uint8Array): Promise<void>;
  serial0_send(text: string): void;
  serial_send_bytes(port: number, data: ArrayLike<number>): void;
  set_serial_container_xtermjs(element: HTMLElement, xterm_lib?: Function): void;
  virtio_console_send(data: string | ArrayLike<number>): void;
  virtio_console_resize(columns: number, rows: number): void;
  keyboard_send_scancodes(codes: number[]): void;
  keyboard_send_text(text: string): void;
  keyboard_release(): void;
  keyboard_set_enabled(enabled: boolean): void;
  mouse_set_enabled(enabled: boolean): void;
  lock_mouse(): void;
  /** From 0 to 1. */
  sound_set_volume(volume: number): void;
  /** What pages made for v86 use of its bus. */
  readonly bus: {
    register(event: string, listener: (data: any) => void, self?: unknown): void;
    unregister(event: string, listener: (data: any) => void): void;
    send(event: string, data: any): void;
  };
  power_button(): void;
  screen_set_scale(x: number, y: number): void;
  screen_go_fullscreen(): Promise<void> | undefined;
  screen_make_screenshot(): HTMLImageElement | null;
  screen_text(): Promise<string[] | null>;
  wait_until_vga_screen_contains(
    expected: string | RegExp | (string | RegExp)[],
    options?: { timeout_msec?: number },
  ): Promise<boolean>;
  set_cdrom(image: Image): Promise<void>;
  eject_cdrom(): Promise<void>;
  set_fda(image: Image): Promise<void>;
  eject_fda(): Promise<void>;
  set_fdb(image: Image): Promise<void>;
  eject_fdb(): Promise<void>;
  read_memory(offset: number, length: number): Promise<Uint8Array>;
  create_file(path: string, data: ArrayBuffer | Uint8Array): Promise<void>;
  read_file(path: string): Promise<Uint8Array>;
}

/** Starts an image of env86: the folder at `imageURL`. `options` are laid over what its image.json says. */
export function boot(imageURL: string, options?: V86Options): Promise<V86>;

export default V86;
