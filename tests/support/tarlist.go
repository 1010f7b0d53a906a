// SPDX-License-Identifier: MIT
// tarlist FILE - each entry of a .tar.gz as Go's archive/tar reads it: type, hex-coded name, then SHA-256 of a file or
// hex-coded target of a link. tarlist FILE raw: the SHA-256 of all bytes that compress/gzip gives.
package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func digest(in io.Reader) string {
	hash := sha256.New()
	_, err := io.Copy(hash, in)
	check(err)
	return fmt.Sprintf("%x", hash.Sum(nil))
}

func main() {
	file, err := os.Open(os.Args[1])
	check(err)
	unzipped, err := gzip.NewReader(file)
	check(err)
	if len(os.Args) > 2 {
		fmt.Println(digest(unzipped))
		return
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		check(err)
		name, rest := header.Name, "-"
		switch header.Typeflag {
		case tar.TypeReg:
			rest = digest(archive)
		case tar.TypeLink, tar.TypeSymlink:
			rest = fmt.Sprintf("%x", header.Linkname)
		case tar.TypeDir:
			name = strings.TrimSuffix(name, "/")
		}
		fmt.Fprintf(out, "%c %x %s\n", header.Typeflag, name, rest)
	}
}
