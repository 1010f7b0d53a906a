// SPDX-License-Identifier: MIT
// CommonsList FILE - each entry of a .tar.gz as Apache Commons Compress reads it; lines as those of TarList.
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveInputStream;
import org.apache.commons.compress.compressors.gzip.GzipCompressorInputStream;

public class CommonsList {
    static String hex(String text) {
        return HexFormat.of().formatHex(text.getBytes(StandardCharsets.UTF_8));
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(new BufferedOutputStream(System.out));
        InputStream file = new BufferedInputStream(new FileInputStream(args[0]));
        try (TarArchiveInputStream tar = new TarArchiveInputStream(new GzipCompressorInputStream(file, true), "UTF-8")) {
            for (TarArchiveEntry entry; (entry = tar.getNextEntry()) != null; ) {
                String name = entry.getName(), rest = "-";
                char type = (char) entry.getLinkFlag();
                if (type == '0') {
                    MessageDigest hash = MessageDigest.getInstance("SHA-256");
                    byte[] piece = new byte[65536];
                    for (int got; (got = tar.read(piece)) > 0; ) hash.update(piece, 0, got);
                    rest = HexFormat.of().formatHex(hash.digest());
                } else if (type == '1' || type == '2') {
                    rest = hex(entry.getLinkName());
                }
                if (type == '5' && name.endsWith("/")) name = name.substring(0, name.length() - 1);
                out.println(type + " " + hex(name) + " " + rest);
            }
        }
        out.flush();
    }
}
