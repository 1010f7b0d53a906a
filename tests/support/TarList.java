// SPDX-License-Identifier: MIT
// TarList FILE [zero] - each entry of a .tar.gz as java.util.zip reads it: type, hex-coded name, then SHA-256 of a file or
// hex-coded target of a link. `zero`: the file comes as a stream that never knows what is available; prints the number
// of bytes that came out of it instead. `raw`: prints the SHA-256 of all bytes.
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.*;
import java.util.zip.GZIPInputStream;

public class TarList {
    static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    static byte[] text(byte[] header, int at, int length) {
        int end = at;
        while (end < at + length && header[end] != 0) end++;
        return Arrays.copyOfRange(header, at, end);
    }

    static long number(byte[] header, int at, int length) {
        if ((header[at] & 0x80) != 0) {
            long value = header[at] & 0x3f;
            for (int i = 1; i < length; i++) value = value << 8 | (header[at + i] & 0xff);
            return value;
        }
        String digits = new String(text(header, at, length), StandardCharsets.US_ASCII).trim();
        return digits.isEmpty() ? 0 : Long.parseLong(digits, 8);
    }

    static Map<String, byte[]> pax(byte[] data) {
        Map<String, byte[]> found = new HashMap<>();
        for (int at = 0; at < data.length; ) {
            int space = at;
            while (data[space] != ' ') space++;
            int length = Integer.parseInt(new String(data, at, space - at, StandardCharsets.US_ASCII));
            int equals = space;
            while (data[equals] != '=') equals++;
            String key = new String(data, space + 1, equals - space - 1, StandardCharsets.UTF_8);
            found.put(key, Arrays.copyOfRange(data, equals + 1, at + length - 1));
            at += length;
        }
        return found;
    }

    static byte[] name(byte[] header) {
        byte[] name = text(header, 0, 100), prefix = text(header, 345, 155);
        boolean ustar = new String(header, 257, 6, StandardCharsets.US_ASCII).equals("ustar\0");
        if (!ustar || prefix.length == 0) return name;
        ByteArrayOutputStream whole = new ByteArrayOutputStream();
        whole.writeBytes(prefix);
        whole.write('/');
        whole.writeBytes(name);
        return whole.toByteArray();
    }

    static byte[] digest(InputStream in, long size) throws Exception {
        MessageDigest hash = MessageDigest.getInstance("SHA-256");
        byte[] piece = new byte[65536];
        while (size != 0) {
            int got = in.read(piece, 0, (int) Math.min(size < 0 ? piece.length : size, piece.length));
            if (got < 0 && size < 0) break;
            if (got < 0) throw new EOFException("cut off inside of a file");
            hash.update(piece, 0, got);
            if (size > 0) size -= got;
        }
        return hash.digest();
    }

    static void list(InputStream in, PrintStream out) throws Exception {
        Map<String, byte[]> more = new HashMap<>();
        while (true) {
            byte[] header = in.readNBytes(512);
            if (header.length < 512) throw new EOFException("cut off between entries");
            if (header[0] == 0 && Arrays.equals(header, new byte[512])) break;
            char type = (char) header[156];
            long size = number(header, 124, 12);
            if (more.containsKey("size")) size = Long.parseLong(new String(more.get("size"), StandardCharsets.US_ASCII));
            long padding = (512 - size % 512) % 512;
            if (type == 'x') {
                more = pax(in.readNBytes((int) size));
            } else {
                byte[] name = more.getOrDefault("path", name(header));
                byte[] link = more.getOrDefault("linkpath", text(header, 157, 100));
                String rest = type == '0' ? hex(digest(in, size)) : type == '1' || type == '2' ? hex(link) : "-";
                if (type == '5' && name[name.length - 1] == '/') name = Arrays.copyOf(name, name.length - 1);
                out.println(type + " " + hex(name) + " " + rest);
                more = new HashMap<>();
            }
            in.skipNBytes(padding);
        }
    }

    public static void main(String[] args) throws Exception {
        String mode = args.length > 1 ? args[1] : "";
        PrintStream out = new PrintStream(new BufferedOutputStream(System.out));
        InputStream file = new FileInputStream(args[0]);
        if (mode.equals("zero"))
            file = new FilterInputStream(file) {
                public int available() {
                    return 0;
                }
            };
        try (InputStream in = new BufferedInputStream(new GZIPInputStream(file), 1 << 16)) {
            if (mode.equals("zero")) out.println(in.transferTo(OutputStream.nullOutputStream()));
            else if (mode.equals("raw")) out.println(hex(digest(in, -1)));
            else list(in, out);
        }
        out.flush();
    }
}
