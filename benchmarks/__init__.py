"""How fast AppSwitch is beside other ways from one program to another on a host: `./dev bench`."""
