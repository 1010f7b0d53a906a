# SPDX-License-Identifier: MIT
"""Apache httpd with mod_dav, a part of servers.Servers: a folder as a WebDAV server that asks for a password.

The child gets LUNARK_TEST_WEBDAV_URL (webdav://127.0.0.1:PORT), WEBDAV_USER, WEBDAV_PASSWORD, and
LUNARK_TEST_WEBDAV_DATA, the folder."""
import os
import subprocess

PROGRAM, MODULES = "/usr/sbin/apache2", "/usr/lib/apache2/modules"
USER, PASSWORD = "night", "a secret: word"
CONFIG = """
ServerRoot "{scratch}"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile "{scratch}/httpd.pid"
ErrorLog /dev/stderr
Mutex file:{scratch}
{modules}
{user}
DocumentRoot "{data}"
DavLockDB "{scratch}/locks"
AllowEncodedSlashes NoDecode
StartServers 1
<Location "/">
    DAV On
    AuthType Basic
    AuthName dav
    AuthUserFile "{scratch}/users"
    Require valid-user
</Location>
"""


class WebdavServers:
    def webdav(self, _buckets=()):
        if not os.path.exists(PROGRAM):
            raise self.unavailable("apache2 is not here (package apache2-bin)")
        port, scratch = self.port(), os.path.join(self.scratch, "webdav")
        data = os.path.join(scratch, "data")
        os.makedirs(data)
        names = ("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs")
        modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in names)
        user = ""
        if os.geteuid() == 0:  # it does not serve as root
            user = "User #65534\nGroup #65534"
            os.chown(scratch, 65534, 65534)
            os.chown(data, 65534, 65534)
            os.chmod(self.scratch, 0o755)
        with open(os.path.join(scratch, "httpd.conf"), "w", encoding="ascii") as file:
            file.write(CONFIG.format(scratch=scratch, port=port, modules=modules, user=user, data=data))
        hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], stdout=subprocess.PIPE, check=True).stdout
        with open(os.path.join(scratch, "users"), "wb") as file:
            file.write(USER.encode() + b":" + hashed)
        child = self.start([PROGRAM, "-D", "FOREGROUND", "-f", os.path.join(scratch, "httpd.conf")], "webdav")
        self.wait_for(port, child, "webdav")
        self.env.update(LUNARK_TEST_WEBDAV_URL=f"webdav://127.0.0.1:{port}", WEBDAV_USER=USER, WEBDAV_PASSWORD=PASSWORD,
                        LUNARK_TEST_WEBDAV_DATA=data)
        return port
