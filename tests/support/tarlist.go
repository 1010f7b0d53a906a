// SPDX-License-Identifier: MIT
// tarlist FILE - SHA-256 and hex-coded name of each regular file of a .tar.gz, as Go's archive/tar reads it.
package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	file, err := os.Open(os.Args[1])
	check(err)
	unzipped, err := gzip.NewReader(file)
	check(err)
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		check(err)
		if header.Typeflag != tar.TypeReg {
			continue
		}
		hash := sha256.New()
		_, err = io.Copy(hash, archive)
		check(err)
		fmt.Printf("%x %x\n", hash.Sum(nil), header.Name)
	}
}
